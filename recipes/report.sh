#!/usr/bin/env bash
# The report's training, from the check of the data to a cut-out: bash recipes/report.sh EG1800/
#
# Time: 60 epochs of 93 s on two cores of an AMD EPYC with AVX-512, an hour and a half
# (benchmarks/results.md).
# Reaches: an mIoU of 96.6 % and a person IoU of 96.5 % on EG1800's validation list, with
# `--amp --procs 2` in 51 minutes on two cores of an Intel Emerald Rapids
# (docs/log/2026-11-28_report_command.md). The report has an mIoU of 94.97 % on the test list.
set -euo pipefail

data=${1:-EG1800/}
output=${2:-output}

python check.py --data_root "$data" || true  # EG1800 has three oddities that do no harm
python train.py --epoch 60 --lr 0.001 --batch_size 32 --data_root "$data" --output "$output"
python evaluate.py --model_path "$output/best.pdparams" --batch_size 32 --split val \
    --data_root "$data" --save_dir "$output"
python predict.py examples/portrait.jpg --mode cutout --model_path "$output/best.pdparams" \
    -o "$output/portrait.png"
python export.py --model_path "$output/best.pdparams" --formats onnx  # needs requirements-dev.txt
