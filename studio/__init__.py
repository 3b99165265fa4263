"""What the dashboard's pages share. Lies outside `pages/`, where each file would be a page."""
