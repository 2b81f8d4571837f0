// act(gate) * up of values of type Lane, f32 or a vector of them.

// SiLU: x / (1 + e^-x). With `gelu` the tanh form of GELU: x / (1 + e^-2u), u = sqrt(2/pi) (x + 0.044715 x^3).
fn gated(gate: Lane, up: Lane, gelu: bool) -> Lane {
    var exponent = -gate;
    if (gelu) { exponent = gate * (Lane(-1.5957691) + Lane(-0.07135482) * (gate * gate)); }
    // Up to 87 the quotient below is defined to the last bits.
    return gate / (exp(clamp(exponent, Lane(-100.0), Lane(87.0))) + Lane(1.0)) * up;
}
