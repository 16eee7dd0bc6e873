"""Which frames and regions of a whole video a learned sampler would keep."""
