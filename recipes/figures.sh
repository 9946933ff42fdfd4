#!/usr/bin/env bash
# The figures of the documents, measured on this machine: bash recipes/figures.sh [GROUP ...]
#
# Each line runs a command and puts its tables into groups of benchmarks/figures.json, with this
# processor, its instruction sets and the date; with names of groups, only those that begin a line.
# Groups that depend on the instruction sets have amx, avx512 or avx2 in their names, so that another
# processor's figures stay. The end writes the documents' tables; read the words around them then.
#
# Needs EG1800/, Picsart/, People/, Picsart_test/, Street/ and backgrounds/ (docs/data.md), Whole_val/
# (recipes/lite.sh makes it), photos/ (any photos of people), clips/ (videos of one person),
# room.jpg, MediaPipe's models in mediapipe/ (benchmarks/infer_speed.py says from where), `python
# export.py` for the exports, and a Python with PyTorch, PYTHON_WITH_TORCH. Nothing else should run
# meanwhile. Time: some hours.
# By hand: matting_time (Predictor.alpha on three portraits), contours (check.py prints them),
# losses (the means of three seeds of benchmarks.ablation), page_switch (the page of 2026-11-24).
set -euo pipefail

torch=${PYTHON_WITH_TORCH:-python} wanted=" $* " results=${RESULTS:-figures}
mkdir -p "$results"
instructions=avx2
if grep -qs avx512f /proc/cpuinfo; then instructions=avx512; fi
if grep -qs amx_tile /proc/cpuinfo; then instructions=amx; fi

figures() {  # groups in one word, then the command
    local groups=$1 first=${1%% *}
    shift
    if [ "$wanted" != "  " ] && [[ $wanted != *" $first "* ]]; then return; fi
    "$@" | tee "$results/$first.txt"
    # shellcheck disable=SC2086  # groups are words
    python -m benchmarks.figures take $groups "$results/$first.txt" --by "$*"
}

scores() {  # group, then flags of evaluate.py
    local group=$1
    shift
    if [ "$wanted" != "  " ] && [[ $wanted != *" $group "* ]]; then return; fi
    python evaluate.py "$@" --json "$results/$group.json"
    python -m benchmarks.figures take "$group" "$results/$group.json" --by "python evaluate.py $*"
}

lists=(EG1800/ Picsart/ People/) selfie=mediapipe/selfie_segmentation.tflite

# Scores.
for network in full lite large; do
    scores ${network}_val --model_path $network --split val --data_root "${lists[@]}"
    scores ${network}_val_degraded --model_path $network --degrade --split val \
        --data_root "${lists[@]}"
    scores ${network}_whole --model_path $network --split val --data_root Whole_val/
    scores ${network}_test --model_path $network --split test --data_root EG1800/
    scores ${network}_held_out --model_path $network --split test --data_root Picsart_test/ Street/
    figures ${network}_robustness python -m benchmarks.robustness --model_path $network \
        --split val --data_root EG1800/ --backgrounds backgrounds/
done
scores full_val_bilinear --model_path full --no-refine --split val --data_root "${lists[@]}"
figures "peers_eg1800 peers_picsart peers_people" python -m benchmarks.peers --model_path full \
    --mediapipe $selfie --split val --data_root "${lists[@]}"
figures "peers_test peers_picsart_test peers_street" python -m benchmarks.peers --model_path full \
    --mediapipe $selfie --split test --data_root EG1800/ Picsart_test/ Street/
figures parity python -m benchmarks.export_parity
figures "flicker_frames - - flicker_smoothed" python -m benchmarks.video_quality clips/*
figures hard_videos python -m benchmarks.hard_videos clips/lp_s18_woman_room.mp4 \
    clips/lp_d9_webcam_man.mp4 --room room.jpg --output "$results/hard_videos"

# Speed.
for threads in "_one 1" " 2"; do
    figures "training_$instructions${threads% *}" python -m benchmarks.train_speed \
        --torch_python "$torch" --no-stock --threads "${threads#* }" --rounds 3 --steps 2
done
figures "inference_$instructions costs" python -m benchmarks.infer_speed --mediapipe mediapipe \
    --threads 1 --rounds 15 --batch_size 4 --inputs 224x224 256x256
figures backend_choice_$instructions python -m benchmarks.backend_choice
figures page_phone_$instructions python -m benchmarks.web_speed --phone 4
figures video python -m benchmarks.video_speed
figures matting python -m benchmarks.matting --data_root EG1800/ --backgrounds backgrounds/
figures matting_large python -m benchmarks.matting --data_root EG1800/ --backgrounds backgrounds/ \
    --model_path large
figures upsampling python -m benchmarks.refine_quality --data_root EG1800/
figures server python -m benchmarks.server_load photos/ --seconds 11
figures page python -m benchmarks.web_speed --threads 1 2 --rounds 3 --seconds 3

python -m benchmarks.figures fill
