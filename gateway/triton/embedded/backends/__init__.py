"""Triton backends that this product brings along; copied into the server's backend directory."""
