"""A TCP endpoint in user space."""
