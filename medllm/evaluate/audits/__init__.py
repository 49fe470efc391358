"""What the figures may owe to something else than the radiograph."""
