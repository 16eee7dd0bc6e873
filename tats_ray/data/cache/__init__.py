"""Videos stored anew for speed: frames as JPEG in shards, or films with many key frames."""
