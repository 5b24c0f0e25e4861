"""Where networks come from: ordinary modules, ours, torchvision's, timm's or a user's, and their pretrained weights."""
