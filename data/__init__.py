"""Images and labels: readers for each layout on disk, and the one preprocessing."""
