"""What a retry is."""
