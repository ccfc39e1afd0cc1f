"""The commands, one module each: options in, words or JSON out. What they tell is read by the modules beside."""
