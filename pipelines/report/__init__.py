"""report.html: its page, tables and charts."""
