"""An evaluation of detectors as texts, figures and sections of pages."""
