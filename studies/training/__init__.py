"""Parts of the study of training; see ../training.py."""
