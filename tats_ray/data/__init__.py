"""Lists of videos, frame-exact decoding, clips and batches, and synthetic videos."""
