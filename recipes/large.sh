#!/usr/bin/env bash
# The training of `large`: bash recipes/large.sh
#
# Needs the folders that recipes/lite.sh needs and makes, and selfie_segmentation.tflite.
# Time and scores: docs/log/2026-11-30_large_from_three.md.
set -euo pipefail

data="EG1800/ EG1800/ Picsart_moved/ Picsart_moved/ People/ People/"
course="--width 1.75 --batch_size 16 --weight_decay 0.01 --loss_weights 0.1 0
    --rotation 15 0.05 --scale 0.8 1.3 --final_geometry 0.5 --photometric_prob 0.3
    --relight_prob 0.2 --background_prob 0.08 --min_person_scale 0.4 --occlusion_prob 0.05
    --backgrounds backgrounds/"

# 1. The wide network starts with the answers of `full`, and learns whole people.
python -m models.widen --model_path weights/portraitnet.pdparams --width 1.75 --output wide.pdparams
python train.py --pretrained wide.pdparams $course --negative_prob 0.1 \
    --data_root $data Drafted_moved/ More/ More/ Whole/ Hair/ Whole_val/ \
    --epoch 4 --size 160:2,224 --lr 0.0004 --seed 404 --output large1 \
    --teacher selfie_segmentation.tflite --teacher_weight 0.25 --teacher_data Picsart_moved/

# 2. The mean of three networks teaches it. The shipped weights saw every second draft and composite
# in this step, for want of time.
python train.py --pretrained large1/model_3.pdparams $course --negative_prob 0.12 \
    --data_root $data Drafted_moved/ More/ More/ Whole/ Hair/ Whole_val/ \
    --epoch 2 --size 192:1,256 --lr 0.0003 --seed 505 --output large2 \
    --teacher large1/model_3.pdparams full lite --teacher_weight 0.6 \
    --teacher_data EG1800/ Picsart_moved/ People/ Drafted_moved/ More/

# 3. With `lite` at its side it is `large`.
python -m models.join --wide large2/model_1.pdparams --lite weights/portraitnet_lite.pdparams \
    --output portraitnet_large.pdparams
python evaluate.py --model_path portraitnet_large.pdparams --split val \
    --data_root EG1800/ Picsart/ People/ Whole_val/
