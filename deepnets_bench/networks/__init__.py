"""Programs run with torch."""
