#!/usr/bin/env bash
# Towards `large`, PortraitNet of width 1.75, which is not shipped: bash recipes/large.sh
#
# Needs the folders that recipes/lite.sh needs and makes, and selfie_segmentation.tflite.
# Time and scores: docs/log/2026-11-30_large_stage_2.md.
set -euo pipefail

# The wide network starts with the answers of `full`.
python -m models.widen --model_path weights/portraitnet.pdparams --width 1.75 --output wide.pdparams
python train.py --width 1.75 --pretrained wide.pdparams --amp --batch_size 16 \
    --data_root EG1800/ EG1800/ EG1800/ Picsart_moved/ Picsart_moved/ Picsart_moved/ \
    People/ People/ People/ Drafted_moved/ More/ More/ Whole/ Hair/ Whole_val/ \
    --epoch 5 --size 160:3,224 --lr 0.0005 --weight_decay 0.01 --loss_weights 0.1 0 \
    --rotation 15 0.05 --scale 0.8 1.3 --final_geometry 0.5 --photometric_prob 0.3 \
    --relight_prob 0.2 --background_prob 0.08 --min_person_scale 0.4 --negative_prob 0.1 \
    --occlusion_prob 0.05 --backgrounds backgrounds/ \
    --teacher selfie_segmentation.tflite --teacher_weight 0.25 --teacher_data Picsart_moved/ \
    --seed 202 --output large1
python evaluate.py --model_path large1/best.pdparams --split val \
    --data_root EG1800/ Picsart/ People/ Whole_val/
