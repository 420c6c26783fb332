"""Images in, video files and previews out."""
