"""What a run found out: frozen results, and text and pictures made from them; nothing is computed anew here."""
