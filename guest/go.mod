module agentic-isolation/guest

go 1.25
