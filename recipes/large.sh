#!/usr/bin/env bash
# The training of `large`: bash recipes/large.sh
#
# Needs the folders that recipes/lite.sh needs and makes, and selfie_segmentation.tflite.
# Time and scores: docs/log/2026-11-30_large_from_three.md.
set -euo pipefail

# 1. The wide network starts with the answers of `full`, and learns whole people.
python -m models.widen --model_path weights/portraitnet.pdparams --width 1.75 --output wide.pdparams
python train.py --width 1.75 --pretrained wide.pdparams --batch_size 16 \
    --data_root EG1800/ EG1800/ Picsart_moved/ Picsart_moved/ People/ People/ \
    Drafted_moved/ More/ More/ Whole/ Hair/ Whole_val/ \
    --epoch 4 --size 160:2,224 --lr 0.0004 --weight_decay 0.01 --loss_weights 0.1 0 \
    --rotation 15 0.05 --scale 0.8 1.3 --final_geometry 0.5 --photometric_prob 0.3 \
    --relight_prob 0.2 --background_prob 0.08 --min_person_scale 0.4 --negative_prob 0.1 \
    --occlusion_prob 0.05 --backgrounds backgrounds/ \
    --teacher selfie_segmentation.tflite --teacher_weight 0.25 --teacher_data Picsart_moved/ \
    --seed 404 --output large1

# 2. Its answers are averaged with those of `full`, which count twice, and of `lite`
# (portraitnet/backends.py) once its export is weights/portraitnet_large.onnx, with its line in
# weights/SHA256SUMS. Distilling that mean into the wide network made it no better.
python export.py --model_path large1/model_3.pdparams --formats fp16 --size 256
python evaluate.py --model_path large --split val --data_root EG1800/ Picsart/ People/ Whole_val/
