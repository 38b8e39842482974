"""Export trained models: ONNX, torch.export, safetensors, model card."""
