"""The door between labelled fields (xarray) and tensors: grids, transforms, codecs, maps between grids, stores."""
