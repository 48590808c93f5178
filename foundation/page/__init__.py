"""HTML pages that hold all they show: style, script, pictures and charts inside one file, which opens without a network."""
