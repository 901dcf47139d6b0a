"""What access costs, and what it holds against those who ask too often or with wrong keys."""
