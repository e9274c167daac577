"""How demo/model was made: its texts, its tokenizer, its shape and its training. The demo itself does not need it."""
