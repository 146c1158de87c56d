"""Where unlabeled images lie: folders, lists of names, webdataset shards, data sets on disk."""

from stic_eval.image_sources.scan import keeps_order, scan_images

__all__ = ["keeps_order", "scan_images"]
