//! Recording, hazards, workspaces: what lies between a model and a device.
