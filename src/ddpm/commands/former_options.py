"""Options of earlier versions that were replaced by several overrides, with these overrides."""

FORMER_OPTIONS = {
    "experiment=ddpm_cifar10_cosine": "experiment=ddpm_cifar10 schedule=cosine",
    "experiment=captions_mnist": "experiment=mnist model=caption_unet_tiny cond=attributes",
    "experiment=superres_mnist": "experiment=mnist cond=low_res data.num_val=500",
    "experiment=cold_fade_mnist": "experiment=cold_mnist process=fade",
    "experiment=cold_blur_mnist": "experiment=cold_mnist process=blur",
    "experiment=cold_mask_mnist": "experiment=cold_mnist process=mask schedule.num_timesteps=50",
    "experiment=cold_pixelate_mnist": "experiment=cold_mnist process=pixelate schedule.num_timesteps=3",
    "experiment=cold_snow_mnist": "experiment=cold_mnist process=snow schedule.num_timesteps=200 process.severity=4",
    "experiment=cold_animorph_mnist": "experiment=cold_mnist process=animorph schedule.num_timesteps=100",
    "experiment=cold_blur_cifar10": "experiment=cold_cifar10 process=blur schedule.num_timesteps=50 process.sigma=0.35 "
    "process.growth=linear process.rate=0.01",
    "experiment=cold_mask_cifar10": "experiment=cold_cifar10 process=mask schedule.num_timesteps=50",
    "experiment=cold_pixelate_cifar10": "experiment=cold_cifar10 process=pixelate schedule.num_timesteps=3",
    "experiment=cold_snow_cifar10": "experiment=cold_cifar10 process=snow schedule.num_timesteps=200",
    "experiment=cold_decolor_cifar10": "experiment=cold_cifar10 process=decolor schedule.num_timesteps=20",
    "experiment=cold_blur_celeba": "experiment=cold_celeba process=blur schedule.num_timesteps=200 process.kernel=15 "
    "process.sigma=1 process.growth=exponential process.rate=0.01",
    "experiment=cold_mask_celeba": "experiment=cold_celeba process=mask schedule.num_timesteps=100",
    "experiment=cold_pixelate_celeba": "experiment=cold_celeba process=pixelate schedule.num_timesteps=4",
    "experiment=cold_snow_celeba": "experiment=cold_celeba process=snow schedule.num_timesteps=200 process.severity=4",
    "experiment=cold_generate_celeba": "experiment=cold_celeba process=blur schedule.num_timesteps=300 "
    "process.kernel=27 process.sigma=1 process.growth=exponential process.rate=0.01 process.padding=circular "
    "process.to_mean=true process.levels=256",
    "schedule=warmup10": "schedule=warmup",
    "schedule=warmup50": "schedule=warmup schedule.fraction=0.5",
    "sampler=analytic": "sampler=ancestral variance=analytic sampler.steps=50",
    "sampler=ddim_sigma_hat": "sampler=ancestral variance=large",
    "model=adm_tiny": "model=adm_64 model.base_channels=32 'model.channel_mults=[1,2]' model.num_res_blocks=1 "
    "'model.attention_levels=[]' model.dropout=0 model.head_channels=32 model.num_groups=8 model.patch_size=2",
    "model=anoddpm_256": "model=ddpm_256 'model.attention_levels=[3,4,5]' model.num_heads=2 +model.scale_shift=false "
    "+model.resample=block +model.convention=adm",
    "features=inception_local": "features=inception features.weights=FILE",
    "metric=fid_is": "'metric=[fid,is]'",
    "metric=guidance": "'metric=[fid,prdc,class_accuracy]'",
    "debug=profile": "trainer.max_steps=100 trainer.profiler=simple",
}
