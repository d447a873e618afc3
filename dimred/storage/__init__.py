"""What lies on disk.

folder     a run's folder: lock, metrics, checkpoint, result
files      files that are replaced in one step
tensors    safetensors files with a checksum
masks      masks.npz: which weights are trained
stored     what of a tensor has to be stored: how it differs from what its seed gives
codes      positions of entries as bytes
compact    the compact file: all tensors of a net in one file
sizes      how many bytes a net takes in every form
"""
