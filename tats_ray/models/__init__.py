"""Networks: the masked autoencoder and the token samplers. timm enters the project here."""
