"""Lists of videos, frame-exact decoding, clips and batches, and videos made here."""
