"""Every benchmark, one after another, and one table: `make bench`, or `python benchmarks`."""

import augmentation
import blocks
import build_densenet
import cutting
import jpeg_folder
import keras_fit
import large_volumes
import losses
import page
import phase_overhead
import retraining
import startup
import submission
import train_small_cnn
import train_unet
import unet_volume
import volumes
from measure import main

main(
    startup.rows,
    train_small_cnn.rows,
    train_unet.rows,
    jpeg_folder.rows,
    augmentation.rows,
    keras_fit.rows,
    build_densenet.rows,
    losses.rows,
    phase_overhead.rows,
    page.rows,
    submission.rows,
    cutting.rows,
    blocks.rows,
    volumes.rows,
    unet_volume.rows,
    large_volumes.rows,
    retraining.rows,
)
