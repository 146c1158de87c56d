"""What `stic-eval new` writes: working files, of which it replaces `my_method`, `My method` and the like."""
