"""What a relay is: config to tree, tree to bundle, bundle to a machine."""
