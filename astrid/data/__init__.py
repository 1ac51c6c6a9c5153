"""Data that ships with Astrid; beside each set a README says source, licence and date."""
