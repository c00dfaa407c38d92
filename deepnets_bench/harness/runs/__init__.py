"""Jobs: where and how they run, and the rows they leave."""
