"""What pipelines and training share to reach storage, Ray, the terminal and the process, and to read configuration."""
