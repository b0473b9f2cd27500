"""What tests are built from: runs, studies, embeddings, files and pages, each made by one function."""
