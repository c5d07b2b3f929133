"""Parts of the study of predictions; see ../predictions.py."""
