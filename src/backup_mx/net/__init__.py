"""What other machines answer: the only openers of sockets to them."""
