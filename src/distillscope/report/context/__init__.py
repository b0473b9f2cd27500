"""What templates show: values computed here, HTML made there."""
