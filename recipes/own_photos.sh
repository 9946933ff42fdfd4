#!/usr/bin/env bash
# Fine-tune the shipped weights on your own photos and masks: bash recipes/own_photos.sh mine/
#
# mine/ holds train_list.txt, lines `photo mask`, and better also val_list.txt (docs/data.md).
# Without masks, run `python label.py photos/ --output mine/` first and correct the drafts.
# A third word is the start: `bash recipes/own_photos.sh mine/ mine_output person` learns nothing from
# the shipped weights and their photos (NOTICE), in 60 epochs instead of 5.
# Time: an epoch of 1,206 photos takes 54 s on two cores of an AMD EPYC
# (docs/log/2026-11-22_ablation_one_seed.md).
# Reaches: what your photos allow. The first score is that of the shipped weights, the second that
# of the fine-tuned ones.
set -euo pipefail

data=${1:-mine/}
output=${2:-mine_output}
start=${3:-weights/portraitnet.pdparams}
training=(--epoch 5 --lr 0.0004 --batch_size 16 --ema 0.99 --loss_weights 0.1 0
    --rotation 14 --scale 0.85 1.15 --photometric_prob 0.2)
if [ $# -gt 2 ]; then training=(--epoch 60 --lr 0.001 --batch_size 32); fi

python check.py --data_root "$data"
python evaluate.py --split val --data_root "$data"  # the shipped weights, for comparison
python train.py --data_root "$data" --pretrained "$start" "${training[@]}" --output "$output"
python evaluate.py --model_path "$output/best.pdparams" --split val --data_root "$data" \
    --save_dir "$output"
python predict.py examples/portrait.jpg --mode cutout --model_path "$output/best.pdparams" \
    -o "$output/portrait.png"
