"""What each figure shows, as plain numbers, before anything is drawn."""
