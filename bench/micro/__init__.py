"""Networks for microcontrollers: LiteRT files as TFLite Micro runs them, and the memory that they take."""
