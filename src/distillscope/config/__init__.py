"""What a study is: its models, and how a preset or a YAML file becomes one."""
