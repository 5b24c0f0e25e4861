"""What FLOAT is compared with: trained here, deployed nowhere."""
