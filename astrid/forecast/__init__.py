"""The learned forecast: features known on a day (features), attention (attention), the models (model, calibration)."""
