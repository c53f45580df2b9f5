//! Models in candle. The only place that names candle.
