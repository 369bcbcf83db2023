"""What diffusers' noise schedules take as settings. A name means the same in every class. Without torch.

Other settings may be there: a schedule that is made from another one's settings keeps those that it has no use for.
"""

from __future__ import annotations

from model_core.families.checkpoints.settings import COUNT, FLAG, NUMBER, POSITIVE, TEXT, WHOLE, each, or_null

KINDS = {
    "num_train_timesteps": COUNT, "beta_start": POSITIVE, "beta_end": POSITIVE, "beta_schedule": TEXT, "solver_order": COUNT,
    "prediction_type": TEXT, "thresholding": FLAG, "dynamic_thresholding_ratio": POSITIVE, "sample_max_value": POSITIVE,
    "predict_x0": FLAG, "solver_type": TEXT, "lower_order_final": FLAG, "disable_corrector": each(WHOLE),
    "use_karras_sigmas": FLAG,
    "use_exponential_sigmas": FLAG, "use_beta_sigmas": FLAG, "use_lu_lambdas": FLAG, "use_flow_sigmas": FLAG, "flow_shift": POSITIVE,
    "shift": POSITIVE, "timestep_spacing": TEXT, "steps_offset": WHOLE, "final_sigmas_type": TEXT, "rescale_betas_zero_snr": FLAG,
    "use_dynamic_shifting": FLAG, "time_shift_type": TEXT, "sigma_min": or_null(POSITIVE), "sigma_max": or_null(POSITIVE),
    "shift_terminal": or_null(POSITIVE), "algorithm_type": TEXT, "euler_at_final": FLAG, "base_shift": or_null(NUMBER),
    "max_shift": or_null(NUMBER),
    "base_image_seq_len": COUNT, "max_image_seq_len": COUNT, "invert_sigmas": FLAG, "stochastic_sampling": FLAG, "clip_sample": FLAG,
    "clip_sample_range": POSITIVE, "set_alpha_to_one": FLAG, "snr_shift_scale": POSITIVE, "interpolation_type": TEXT,
    "timestep_type": TEXT, "original_inference_steps": COUNT, "timestep_scaling": POSITIVE,
}  # fmt: skip
WORDS = {
    "beta_schedule": ("linear", "scaled_linear", "squaredcos_cap_v2"),
    "timestep_spacing": ("linspace", "leading", "trailing"),
    "final_sigmas_type": ("zero", "sigma_min"),
    "time_shift_type": ("exponential", "linear"),
    "interpolation_type": ("linear", "log_linear"),
    "timestep_type": ("discrete", "continuous"),
}
