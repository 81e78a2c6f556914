"""What crosses a wire: usage events, findings, incidents, commands, the directory, and the topics they travel on."""
